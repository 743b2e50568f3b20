-- The flights with what was known about their carrier, aircraft and weather: the one table to ask new questions of.
-- Left joins, because an unknown aircraft or a missing reading must not remove a flight.
select
    flights.*,
    airlines.carrier_name,
    planes.manufacturer,
    planes.seat_count,
    extract(year from flights.flight_date) - planes.built_year as aircraft_age_years,
    weather.temperature_f,
    weather.wind_mph,
    weather.precipitation_inches,
    weather.visibility_miles,
    weather.weather_condition
from {{ ref('flights') }} as flights
left join {{ ref('airlines') }} as airlines
    on flights.carrier_code = airlines.carrier_code
left join {{ ref('planes') }} as planes
    on flights.tail_number = planes.tail_number
left join {{ ref('weather') }} as weather
    on flights.origin_code = weather.origin_code
    and flights.scheduled_departure_hour = weather.observed_hour
