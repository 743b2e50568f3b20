-- Which routes are best avoided? Only those flown about once a day or more: one bad week says little about a route.
with regular as (
    select
        row_number() over (order by on_time_percent, avg_arrival_delay_minutes desc, route) as rank,
        *
    from {{ ref('route_delays') }}
    -- 350 in a whole year; as many for each day where only a part of it was loaded
    where 365 * flights >= 350 * (select count(distinct flight_date) from {{ ref('flights') }})
)

select * from regular
where rank <= 20
order by rank
