"""What a step runs: dbt, dbt-ol and edr, their output and their results."""
