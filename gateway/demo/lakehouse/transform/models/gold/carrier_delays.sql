-- Which carrier is the most punctual?
with carriers as (
    select
        carrier_code,
        carrier_name,
        {{ measures() }}
    from {{ ref('flight_details') }}
    group by carrier_code, carrier_name
)

select
    row_number() over (order by on_time_percent desc, avg_arrival_delay_minutes, carrier_code) as rank,
    *
from carriers
order by rank
