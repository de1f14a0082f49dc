"""The compute market: a pure, embedded library that holds every rule.

Nothing in here prints, reads a clock, an environment variable or a random number, or touches the
network: time, ids and randomness are arguments. All state lives in one LMDB environment that only
`environment` opens; an action is a plain function over a `store.Txn`, run by `Store.update` or
`Store.view`.

Imports run one way, top to bottom:

    errors  amounts                   what can go wrong; integer arithmetic
    records                           the nouns, and how they are stored
    requests                          what operators ask for: job and offer files
    toml  config                      every setting and its default, and how a file changes it
    schema                            the tables and their encoding
    lock  environment                 one writer at a time; the files of the store
    store                             transactions
    metrics                           the metric table, counters, exposition
    ledger                            the only writer of accounts and postings
    reputation  book  offers          scores; the price-ordered index; the offers
    admission  queue                  capacity, fair share, burst; who waits for a slot
    scheduler                         match, effective price, explain, statistics
    chain  receipts  settlement       heights; proofs of work done; who pays whom
    cancellations  decisions          the tables behind cancellations.log and the decision log
    jobs                              job records and their moves from state to state
    drafts                            jobs as they are asked for
    lifecycle                         submit, match, prove, cancel, expire
    audit                             walks everything and names every violation
    exposition                        the metrics as Prometheus reads them

`hashing`, `workloads`, `proofs`, `remote` and `runner` know nothing of the store.
"""

__version__ = "0.1.0"
