"""What one run does, a module a step: pull a report, register its links, fetch what is due, seal the day.

A step ties the three cores together and knows neither Dagster nor the environment: it takes what it needs and returns
what it found. The cores do not know the steps.
"""
