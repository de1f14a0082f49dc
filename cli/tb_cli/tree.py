"""The tree of commands: where the function of each is, one line of help, and what it may do."""

from tb_cli.frame.verbs import Group, Verb

# Options that print what a file is like.
_PRINTS = ("schema", "example")


def _reads(target: str, help: str) -> Verb:
    return Verb(f"tb_cli.{target}", help)


def _writes(
    target: str, help: str, *, reads_without: str | None = None, reads_with: tuple[str, ...] = ()
) -> Verb:
    return Verb(
        f"tb_cli.{target}",
        help,
        writes=True,
        reads_without=reads_without,
        reads_with=reads_with,
    )


def _creates(target: str, help: str, *, reads_with: tuple[str, ...] = ()) -> Verb:
    """It brings something new, and with it a market where there is none."""
    return Verb(f"tb_cli.{target}", help, writes=True, reads_with=reads_with, market="created")


def _apart(target: str, help: str, *, writes: bool = False) -> Verb:
    """It needs no market, nor looks for one."""
    return Verb(f"tb_cli.{target}", help, writes=writes, market="unused")


def _optional(target: str, help: str) -> Verb:
    """It looks at the market where there is one, and needs none."""
    return Verb(f"tb_cli.{target}", help, market="optional")


TREE = Group(
    "Operate a compute market on one machine.",
    {
        "demo": _apart("demo:demo", "Show the whole market on the example workloads."),
        "compute": Group(
            "Offers and jobs.",
            {
                "offer": Group(
                    "Offers of capacity.",
                    {
                        "post": _creates(
                            "offer:post", "Post offers from options or a file.", reads_with=_PRINTS
                        ),
                        "set": _writes("offer_set:set_", "Change the terms or units of offers."),
                        "list": _reads("offer_list:list_", "List offers by id."),
                        "show": _reads("offer:show", "Show one offer."),
                        "explain": _reads(
                            "explain:offer", "Say which jobs an offer won, and why not others."
                        ),
                        "withdraw": _writes("offer:withdraw", "Take offers off the market."),
                    },
                ),
                "submit": _creates(
                    "submit:submit", "Submit jobs from files or options.", reads_with=_PRINTS
                ),
                "execute": _writes("execute:execute", "Run and prove active jobs."),
                "prove": _writes("execute:prove", "Submit one proof computed elsewhere."),
                "cancel": _writes("cancel:cancel", "Cancel jobs that have not ended."),
                "preempt": _writes(
                    "preempt:hand_over", "Hand a running job over to a better offer."
                ),
                "set": _writes("hold:set_", "Change the deadline or priority of live jobs."),
                "hold": _writes("hold:hold", "Keep waiting jobs from being started."),
                "release": _writes("hold:release", "Let held jobs wait for their turn again."),
                "run": _apart("run:run", "Hash slice files, with no market."),
                "status": _reads("jobs:status", "Show one job: state, progress, money."),
                "list": _reads("job_lists:list_", "List jobs, live ones unless asked for others."),
                "slices": _reads("job_lists:slices", "List the slices of a job and their proofs."),
                "history": _reads("job_lists:history", "Show what happened to a job."),
                "queue": _reads("job_lists:queue", "List waiting jobs in starting order."),
                "requirements": _reads(
                    "jobs:requirements", "Print the capability a live job asks for."
                ),
                "explain": _reads("explain:explain", "Say why offers do or do not fit a job."),
                "stats": _reads("scheduler:stats", "Print the scheduler's statistics."),
                "calibrate": _apart(
                    "calibrate:calibrate", "Measure how fast this machine hashes.", writes=True
                ),
                "wait": _reads("jobs:wait", "Wait until jobs have ended."),
                "courier": Group(
                    "Bundles that go to other markets.",
                    {
                        "send": _creates("courier_send:send", "Store a bundle, to be forwarded."),
                        "flush": _writes("courier_flush:flush", "Forward the bundles that wait."),
                        "receive": _writes(
                            "courier_receive:receive", "Take in what others forwarded to a place."
                        ),
                        "list": _reads(
                            "courier:list_", "List the receipts of bundles as they were sent."
                        ),
                        "show": _reads("courier:show", "Show the receipt of one bundle."),
                        "resend": _writes("courier_send:resend", "Forward bundles once more."),
                    },
                ),
            },
        ),
        "compute-market": Group(
            "The market's rules, settlement and audit.",
            {
                "params": Group(
                    "The admission parameters; by itself, `params show`.",
                    {
                        "show": _optional("governance:show", "Print the admission parameters."),
                        "propose": _writes(
                            "governance:propose", "Propose another value of a parameter."
                        ),
                        "approve": _writes("governance:approve", "Let a proposal come into force."),
                        "rollback": _writes(
                            "governance:rollback", "Undo what came into force last."
                        ),
                        "history": _reads("params_history:history", "List proposals by id."),
                    },
                    default="show",
                ),
                "prices": Group(
                    "The price board; by itself, `prices show [--lane LANE]`.",
                    {
                        "show": _reads("prices:show", "Show the price bands of each lane."),
                        "suggest": _reads("prices:suggest", "Say what to bid."),
                    },
                    default="show",
                ),
                "stats": _reads("admission:stats", "Print backlog, utilization, units and price."),
                "subsidy": _reads("subsidy:show", "Show an epoch, and what it pays."),
                "match": _writes("scheduler:match", "Try the pending jobs again."),
                "audit": _reads("audit:audit", "Check every law of the market."),
                "simulate": _apart(
                    "simulate:simulate", "Play a scenario through a throw-away market."
                ),
                "clock": _writes(
                    "clock:clock", "Show market time, or accept the clock.", reads_without="action"
                ),
                "settle": Group(
                    "The settlement mode.",
                    {
                        "status": _reads("settle:status", "Show the mode and what waits."),
                        "arm": _creates("settle:arm", "Turn real after some blocks."),
                        "cancel-arm": _writes("settle:cancel_arm", "Take arming back."),
                        "dry-run": _writes("settle:dry_run", "Stop moving money."),
                        "tick": _writes("settle:tick", "Do only what is due."),
                        "plan": _reads("settle:plan", "Show what paying what waits would move."),
                    },
                ),
                "capacity": Group(
                    "The capacity estimate.",
                    {
                        "record": _creates("admission:record", "Record a capacity sample."),
                        "show": _reads("admission:show", "Show samples, headroom and usage."),
                    },
                ),
                "sla": Group(
                    "Deadlines.",
                    {
                        "sweep": _writes("sla:sweep", "Fail every overdue job."),
                        "extend": _writes("sla:extend", "Move every deadline."),
                    },
                ),
                "receipts": Group(
                    "Receipts of proven work.",
                    {
                        "list": _reads("receipt_list:list_", "List receipts in order of issue."),
                        "show": _reads("receipts:show", "Show the receipt of a job or key."),
                        "export": _reads(
                            "receipt_files:export", "Write receipts to a signed file."
                        ),
                        "verify": _apart("receipt_files:verify", "Verify a file of receipts."),
                        "import": _creates(
                            "receipt_files:import_", "Take receipts of another market."
                        ),
                    },
                ),
            },
        ),
        "wallet": Group(
            "Wallets in CT and IT.",
            {
                "deposit": _creates("wallet:deposit", "Pay into a wallet from the supply."),
                "withdraw": _writes("wallet:withdraw", "Pay out of a wallet into the supply."),
                "balance": _reads("wallet:balance", "Show what a party has and has locked."),
                "history": _reads("wallet_history:history", "List the movements of a wallet."),
                "list": _reads("wallet_list:list_", "List the wallets of all owners by name."),
                "statement": _reads(
                    "statement:statement", "Add up what came into a wallet and was spent."
                ),
            },
        ),
        "mempool": Group(
            "Consumer transactions, and the comfort guard.",
            {
                "submit": _creates("mempool:submit", "Send a consumer transaction."),
                "stats": _reads(
                    "mempool:stats", "Show the guard, fees, and the pool of each lane."
                ),
            },
        ),
        "chain": Group(
            "Block heights.",
            {
                "status": _reads("chain:status", "Show height, epoch, market id and genesis."),
                "advance": _writes("chain:advance", "Let blocks pass at once."),
            },
        ),
        "bid": Group(
            "Sealed bids: jobs that nobody can read before they are revealed.",
            {
                "commit": _writes("bid:commit", "Seal a job, and commit to it."),
                "export": _reads("bid:export", "Write what another market takes in."),
                "import": _writes("bid:import_", "Take in the sealed bid of another home."),
                "reveal": _writes(
                    "reveal:reveal", "Open a bid, and submit the job it holds.", reads_with=("to",)
                ),
                "import-reveal": _writes(
                    "reveal:import_reveal", "Open the bid of another home by its file."
                ),
                "list": _reads("bid_list:list_", "List sealed bids by id."),
                "show": _reads("bid:show", "Show one bid: state, window, bond, job."),
            },
        ),
        "net": Group(
            "Views other nodes ask for.",
            {
                "compute": Group(
                    "The scheduler.",
                    {"stats": _reads("scheduler:stats", "Print the scheduler's statistics.")},
                ),
                "reputation": Group(
                    "Scores of providers.",
                    {
                        "show": _reads("reputation:show", "Show providers, the best score first."),
                        "sync": _writes("reputation_sync:sync", "Tell every peer the scores."),
                        "adjust": _writes("reputation:adjust", "Add to the score of a provider."),
                        "export": _writes(
                            "reputation_files:export",
                            "Write scores for other markets, or a snapshot.",
                        ),
                        "import": _writes(
                            "reputation_files:import_", "Take the scores of another market."
                        ),
                    },
                ),
            },
        ),
        "key": Group(
            "Keys that sign.",
            {
                "new": _creates("key:new", "Make a key of your own."),
                "list": _reads("key:list_", "List keys by name."),
                "show": _reads("key:show", "Show the public part of a key."),
                "import-public": _creates(
                    "key:import_public", "Take the public key of somebody else from a file."
                ),
            },
        ),
        "status": _reads("status:status", "Show the market on one page."),
        "log": _reads("log:log", "Print what happened, and who asked for it."),
        "tick": _writes("settle:tick", "Do what is due and nothing else."),
        # What others send changes the market. There is nothing in it to be tried.
        "serve": Group(
            "The market over HTTP. By itself, `serve run [--host HOST] [--port PORT] "
            "[--tls-cert FILE] [--tls-key FILE] [--insecure] [--check] [--log-format json|text]`.",
            {
                "run": _reads("serve:serve", "Answer over HTTP."),
                "token": _writes("serve:token", "Print what changes over HTTP need."),
            },
            default="run",
        ),
        "metrics": _reads("metrics:metrics", "Print the metrics for Prometheus."),
        "batch": _apart("batch:batch", "Run one command per line of standard input.", writes=True),
        "state": Group(
            "The files of the market.",
            {
                "init": _creates("state:init", "Create a home and an empty market now."),
                "check": _reads("audit:check", "Check the data file and every law."),
                "backup": _writes("state:backup", "Write a consistent copy of the home."),
                "restore": _apart("state:restore", "Make a home of a backup.", writes=True),
                "archive": _writes("archive:archive", "Move what ended long ago to a file."),
                "compact": _writes("compact:compact", "Give back what is free in the data file."),
                "info": _reads("state:info", "Show what the home holds, and how full it is."),
                "stats": _reads("state:stats", "Show how many entries each table has."),
                "root": _reads("state:root", "Print one hash of money, mode and receipts."),
            },
        ),
        "completion": _apart("completion:completion", "Print what completes words in a shell."),
        "help": _apart("help:help_", "Show the help of a command, or a topic."),
        "config": Group(
            "The configuration.",
            {
                "show": _optional("config:show", "Show settings and where each comes from."),
                "init": Verb(
                    "tb_cli.config:init",
                    "Write a file of all settings.",
                    writes=True,
                    reads_with=("to",),
                    market="unused",
                ),
                "path": _apart("config:path", "Print where the file of settings is."),
            },
        ),
    },
)
