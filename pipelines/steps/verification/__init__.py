"""The archive proved: everything that is said to be held is there, as it was sealed, and nothing else is.

Reads the bucket and the ledger again and writes to neither. `doubts` says what can be found, `scratch` compares in
little memory, `evidence` looks at manifests, witnesses and the ledger, `objects` at what lies in the bucket, `days`
goes through the dates, `drill` through some of them at random, `report` makes one document of it all.
"""
