"""The compute market: a pure, embedded library that holds every rule.

Nothing in here prints, reads a clock, an environment variable or a random number, or touches the
network: time, ids and randomness are arguments. All state lives in one LMDB environment that only
`store.environment` opens; an action is a plain function over a transaction.

A package is a noun, and a file in it is one thing the noun does. Imports run one way, top to
bottom, and so they do inside each package:

    text  errors              text for one line; what can go wrong
    quantities                durations and sizes as people write them
    learned                   types that several threads read into
    field_errors              what is wrong with a document or a field, in words
    signatures/               ML-DSA-65: keys, signing, verifying; the form of what is signed
    home  amounts             the files of a home; integer arithmetic
    backends                  the names of what hashes slices
    records                   the nouns, and how they are stored
    keyed_records             what happened under idempotency keys, and how it is stored
    receipt_records           receipts and what became of their money, and how they are stored
    bid_records               sealed bids, and how they are stored
    import_records            receipts of other markets, and how they are stored
    courier_records           bundles on their way, and how they are stored
    governance_records        proposals and parameters, and how they are stored
    subsidy_records           epochs of the subsidy, and how they are stored
    mempool_records           the consumer pool, and how it is stored
    price_records             the price board, as it was loaded
    archive_records           what is left of the archived, and how it is stored
    amount_text               amounts as text, for JSON whose reader has 53 bits for a number
    json_text  json_lists     JSON that is handed in, taken apart, and what is wrong with it
    json_documents            the objects of a file: one, one per line, or those of a list
    requests                  what operators ask for, job and offer files
    config/                   every setting and its default, and how a file changes it
    store/                    the tables and their encoding; one writer at a time; transactions
    laws                      what a law of the audit is
    idempotency               keys under which an action happens once
    metrics                   the metric table and the counters
    archived                  ids, keys and sums that stay behind when records are archived
    events                    the log of everything that happened
    clock                     market time, and whether the clock is believed
    chain                     heights
    governance/               proposals, and the parameters in force
    instance                  which copy of a market this is
    reputation/               scores of providers
    settlement/               accounts, escrow, receipts, and who pays whom
    offers/                   the offers, and the index that is ordered by price
    scheduler/                who waits for a slot; match, effective price, explain
    admission/                the consumer pool and the comfort guard; capacity, fair share, burst
    jobs/                     job records, and submit, match, prove, cancel, expire
    bids/                     jobs that are sealed first and revealed later
    courier/                  bundles that are stored and forwarded to other markets
    subsidy/                  epochs, the multiplier, and what providers earn beside the price
    archive/                  what has ended goes to a file, and what is left of it
    audit                     walks the laws of every room
    overview  parties         the market on one page; all there is of one party
    exposition                the metrics as Prometheus reads them
    concerns                  what an operator should know at once
    rpc_results  rpc          the methods of the endpoint, what they answer, their errors
    upgrades                  what an older release stored, brought up to date
    execution                 running slices for the market
    housekeeping              what is due, and what every change ends with
    engine                    the only runner of transactions
    verbs                     prices, parameters, mempool, settlement and so on, for programs
    submission                from the fields of a job file to the job
    market                    the front door for programs
    simulation/               scenarios of a market that does not exist yet, played through this one

`hashing` and `workloads` know nothing of the store.
"""

__version__ = "0.1.0"
