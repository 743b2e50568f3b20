-- A carrier that nobody knows, or a thirteenth month, would make an empty report that looks like an answer.
-- depends_on: {{ ref('carrier_report') }}, so that whoever builds the report runs this too
select 'carrier' as variable
where {{ var('carrier') is not none }}
    and '{{ dbt.escape_single_quotes(var('carrier') | string) }}' not in (select carrier_code from {{ ref('airlines') }})
union all
select 'month' as variable
where {{ var('month') is not none }}
    and {{ var('month') | int }} not between 1 and 12
