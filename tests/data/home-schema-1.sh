#!/bin/sh
# How `home-schema-1.tar.gz` was made: run in an empty directory with the `tb-cli` of commit 5a9d171
# on the PATH, the last one that writes schema 1. The archive holds what that release stored
# (`home/`) and what it printed about it (`printed/`).
set -eu
export TB_HOME="$PWD/written"
tb() { tb-cli "$@" >/dev/null; }
refused() {
  if tb-cli "$@" >/dev/null 2>refusal; then
    echo "not refused: $*" >&2
    exit 1
  fi
  sed "s/^/as it should be: /" refusal >&2
}
offer() { tb compute offer post --units 100 "$@"; }
submit() {
  id=$1
  shift
  tb compute submit --job-id "$id" --workload transcode --slice one.slice --max-price 20 \
    --deadline-secs 1000000000 "$@"
}
by_alice() { submit "$@" --buyer alice; }
ONE=d33fb48ab5adff269ae172b29a6913ff04f6f266207a7a8e976f2ecd571d4492 # the BLAKE3 hash of one.slice

mkdir written home printed
cat >written/config.toml <<'TOML'
min_capacity = 1
fair_share_cap = 0.01
burst_quota = 13.5
burst_refill_rate = 0.0
provider_cancel_penalty_after = 2
[scheduler]
slots = 6
TOML
printf one >one.slice
printf two >two.slice
printf three >three.slice
head -c 3000000 /dev/zero >large.slice
head -c 12000000 /dev/zero >huge.slice

# Taps, with and without keys, once or twice.
tb wallet deposit alice --ct 1000 --it 1000 --key first
tb wallet deposit alice --ct 1000 --it 1000 --key first
tb wallet deposit bob --ct 500
tb wallet deposit prov --ct 500
tb wallet deposit prov --it 3 --key it-only
tb wallet deposit leaving --ct 300
tb wallet deposit busy --ct 20
tb wallet deposit late --ct 50 --key late-funds
tb wallet deposit rich --ct 900
tb wallet withdraw rich --ct 100 --key out
refused wallet withdraw rich --ct 100000

tb compute-market capacity record 40
tb compute-market capacity record 50
tb compute-market capacity record 60

# Offers: open, priced by reputation, paid in two tokens, of a wallet without funds, for one job
# only, withdrawn, taken whole.
offer --offer-id open --provider prov --price 5 --reputation 3 --multiplier 0.9 --cpu-cores 8
offer --offer-id mixed --provider prov --price 6 --fee-pct-ct 40 --bond 7 --consumer-bond 2 \
  --cpu-cores 16
offer --offer-id leaving-1 --provider leaving --price 14 --bond 30 --reputation 1 --gpu A100 \
  --gpu-count 2 --gpu-memory-mb 81920
offer --offer-id late-1 --provider late --price 15 --bond 10 --accelerator TPU \
  --accelerator-memory-mb 16384
offer --offer-id unfunded --provider poor --price 1 --bond 50 --reputation 1 --gpu H100
offer --offer-id directed --provider prov --price 2 --job chosen
offer --offer-id busy --provider busy --price 8 --gpu L4 --reputation 1
offer --offer-id gone --provider rich --price 9
tb compute offer withdraw gone
tb compute offer post --offer-id small --provider rich --units 1 --price 1 --gpu RTX4090 \
  --reputation 2
refused compute offer post --offer-id open --provider prov --units 5 --price 5

# In dry_run nothing moves: unfunded jobs.
by_alice dry-completed
tb compute execute dry-completed
by_alice dry-cancelled
tb compute cancel dry-cancelled
by_alice dry-active --slice two.slice
tb compute prove dry-active 0 $ONE
refused compute prove dry-active 1 $ONE
by_alice exhausts --gpu RTX4090
tb compute execute exhausts

# From here on money moves.
tb compute-market settle arm --delay-blocks 1
tb chain advance 2
tb compute-market settle tick
by_alice completed --slice two.slice
tb compute execute completed
by_alice completed-mixed --slice large.slice --bond 2 --cpu-cores 16 --priority high
tb compute execute completed-mixed
by_alice chosen
tb compute execute chosen
by_alice cancelled --bond 4
tb compute cancel cancelled
by_alice half-cancelled --slice two.slice
tb compute prove half-cancelled 0 $ONE
tb compute cancel half-cancelled

# A provider that cancels, loses part of its bond and is barred, and one that is late and is barred.
by_alice left-1 --gpu A100 --gpu-count 2
tb compute cancel left-1 --by provider
by_alice left-2 --gpu A100 --gpu-count 2
tb compute cancel left-2 --by provider
by_alice missed --accelerator TPU --deadline-secs 1
sleep 2
tb compute-market settle tick

# Burst is used, then refused; so is what nobody offers, and what cannot be paid.
for id in share-1 share-2 bursts; do
  submit $id --buyer bob --slice huge.slice --gpu L4
done
tb compute cancel share-1 share-2
refused compute submit --job-id greedy --buyer bob --workload transcode --slice huge.slice \
  --max-price 20 --gpu L4
refused compute submit --job-id nobody --buyer bob --workload transcode --slice one.slice \
  --max-price 20 --gpu MI300
refused compute submit --job-id poor --buyer carol --workload transcode --slice one.slice \
  --max-price 20
by_alice waits --gpu MI300 --wait
by_alice waited --gpu MI300 --wait --deadline-secs 1
sleep 2

# Jobs wait for a slot.
by_alice owed --slice three.slice
by_alice active --priority high --slice three.slice
tb compute prove active 0 $ONE
by_alice low-active --priority low
by_alice low-other --priority low --lane consumer
by_alice low-queued --priority low
by_alice queued
by_alice queued-high --priority high
by_alice queued-cancelled --priority low
tb compute cancel queued-cancelled

# Money stands still again, so that a receipt waits.
tb compute-market settle dry-run --reason "a home to read"
tb compute execute owed
tb compute-market settle arm --delay-blocks 900000000

# What it says, and what it stored. Nothing here changes anything.
show() { name=$1; shift; tb-cli "$@" --json >"printed/$name.json"; }
show jobs compute list
show offers compute offer list
show receipts compute-market receipts list
show settle compute-market settle status
show stats compute-market stats
show effective compute stats --effective
show queue compute queue
show params compute-market params
show audit compute-market audit
show chain chain status
for owner in alice bob carol prov leaving late rich poor; do
  show "balance-$owner" wallet balance $owner
  show "history-$owner" wallet history $owner
done
tb-cli metrics >printed/metrics.txt
tb state backup "$PWD/copy"
mkdir home/market
cp "$(find copy -name data.mdb)" home/market/data.mdb
cp written/cancellations.log written/config.toml home/
tar --sort=name --owner=0 --group=0 --numeric-owner -cf - home printed | gzip -9n \
  >home-schema-1.tar.gz
