-- Every gold table that covers all flights must add up to all of them: no join drops a flight or counts it twice.
{% set tables = [
    'carrier_delays', 'route_delays', 'hourly_delays', 'monthly_delays',
    'daily_performance', 'weather_delays', 'aircraft_age_delays', 'airport_traffic',
] %}

with totals as (
    {% for table in tables %}
    select '{{ table }}' as table_name, sum(flights) as flights from {{ ref(table) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
)

select *
from totals
where flights is distinct from (select count(*) from {{ ref('flights') }})
