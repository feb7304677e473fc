"""The source: how RingCX is logged into, asked politely, and read without believing it."""
