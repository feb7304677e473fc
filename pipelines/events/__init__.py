"""End Call Events: a receiver that RingCX posts to, and the files in which it keeps them. No Dagster, no ledger lines.

`app.py` answers, `event.py` says what an event is, `commit.py` and `keep.py` make it durable, `stored.py` reads it.
What the stored events mean for the archive is `pipelines.steps.events`.
"""
