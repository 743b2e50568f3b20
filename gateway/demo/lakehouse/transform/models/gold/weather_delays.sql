-- What does the weather at departure cost?
select
    coalesce(weather_condition, 'not recorded') as weather_condition,
    {{ measures() }}
from {{ ref('flight_details') }}
group by 1
order by avg_departure_delay_minutes
