-- One row for each scheduled flight. Times are those of New York's clocks, as on the departure board.
with scheduled as (
    select
        *,
        make_date(year, month, day) as flight_date,
        make_timestamp(year, month, day, hour, minute, 0) as scheduled_departure_at
    from {{ source('bronze', 'flights') }}
)

select
    concat_ws('-', flight_date, carrier, flight, origin) as flight_key,
    flight_date,
    carrier as carrier_code,
    flight as flight_number,
    tailnum as tail_number,
    origin as origin_code,
    dest as destination_code,
    distance as distance_miles,
    scheduled_departure_at,
    -- from the delay, since dep_time is a clock time: after midnight it is one of the next day
    {{ dbt.dateadd('minute', 'dep_delay', 'scheduled_departure_at') }} as departed_at,
    -- the hour of the scheduled departure, in UTC: the key for the weather
    time_hour as scheduled_departure_hour,
    dep_delay as departure_delay_minutes,
    arr_delay as arrival_delay_minutes,
    air_time as air_time_minutes,
    case
        when dep_time is null then 'cancelled'
        -- it left, but was diverted, or its arrival was not recorded
        when arr_delay is null then 'diverted'
        when arr_delay >= {{ var('late_after_minutes') }} then 'late'
        else 'on time'
    end as outcome
from scheduled
