"""What a run does, a package for each stage: it ties the three cores together, and knows neither Dagster nor the
environment.
"""
