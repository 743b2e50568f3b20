-- An unknown carrier, or a thirteenth month, would give an empty report instead of an error.
-- depends_on: {{ ref('carrier_report') }}, so that a build of the report runs this test too
select 'carrier' as variable
where {{ var('carrier') is not none }}
    and '{{ dbt.escape_single_quotes(var('carrier') | string) }}' not in (select carrier_code from {{ ref('airlines') }})
union all
select 'month' as variable
where {{ var('month') is not none }}
    and {{ var('month') | int }} not between 1 and 12
