with readings as (
    select
        origin as origin_code,
        time_hour as observed_hour,
        temp as temperature_f,
        humid as humidity_percent,
        -- one reading says 1,048 mph; no gust ever measured reached 254
        case when wind_speed < 254 then round(wind_speed, 1) end as wind_mph,
        precip as precipitation_inches,
        visib as visibility_miles
    from {{ source('bronze', 'weather') }}
)

select
    *,
    -- one word for an hour; the first that fits, the worst for flying first
    case
        when visibility_miles < 1 then 'fog'
        when precipitation_inches > 0 and temperature_f <= 32 then 'snow'
        when precipitation_inches >= 0.1 then 'heavy rain'
        when precipitation_inches > 0 then 'light rain'
        when wind_mph >= 20 then 'strong wind'
        when visibility_miles < 10 then 'haze'
        else 'fair'
    end as weather_condition
from readings
