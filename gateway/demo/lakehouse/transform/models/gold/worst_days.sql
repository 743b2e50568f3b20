-- Which days went wrong most, and was it the weather? The weather is that of the hours and airports of the flights.
with conditions as (
    select
        flight_date,
        round(max(wind_mph), 1) as strongest_wind_mph,
        min(visibility_miles) as lowest_visibility_miles,
        max(precipitation_inches) as heaviest_hour_inches
    from {{ ref('flight_details') }}
    group by flight_date
),

days as (
    select
        row_number() over (order by daily.on_time_percent, daily.flight_date) as rank,
        daily.*,
        conditions.strongest_wind_mph,
        conditions.lowest_visibility_miles,
        conditions.heaviest_hour_inches
    from {{ ref('daily_performance') }} as daily
    inner join conditions
        on daily.flight_date = conditions.flight_date
)

select * from days
where rank <= 20
order by rank
