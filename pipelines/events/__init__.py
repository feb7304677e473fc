"""End Call Events: a receiver that RingCX posts to, and the files in which it keeps them. No Dagster, no ledger lines.

`app.py` answers, `event.py` says what an event is, `commit.py` makes many durable at once, `files.py` keeps and reads
them. What the stored events mean for the archive is `pipelines.steps.pull.events`.
"""
