-- Which season is the hardest?
select
    cast({{ dbt.date_trunc('month', 'flight_date') }} as date) as flight_month,
    {{ measures() }}
from {{ ref('flights') }}
group by flight_month
order by flight_month
