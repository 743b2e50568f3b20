-- Does a longer flight make up for a late start? Only flights that left late and arrived.
with late_starts as (
    select
        *,
        case
            when distance_miles < 500 then 'under 500 miles'
            when distance_miles < 1000 then '500 to 999 miles'
            when distance_miles < 2000 then '1000 to 1999 miles'
            else '2000 miles and more'
        end as distance
    from {{ ref('flights') }}
    where departure_delay_minutes > 0
        and arrival_delay_minutes is not null
)

select
    distance,
    count(*) as late_departures,
    round(avg(departure_delay_minutes - arrival_delay_minutes), 1) as avg_minutes_recovered,
    {{ percent_where("outcome = 'on time'") }} as arrived_on_time_percent
from late_starts
group by distance
order by min(distance_miles)
