-- How punctual is each route, and how many carriers share it?
select
    flights.origin_code || '-' || flights.destination_code as route,
    flights.origin_code,
    flights.destination_code,
    airports.airport_name as destination_name,
    min(flights.distance_miles) as distance_miles,
    count(distinct flights.carrier_code) as carriers,
    {{ measures() }}
from {{ ref('flights') }} as flights
inner join {{ ref('airports') }} as airports
    on flights.destination_code = airports.airport_code
group by flights.origin_code, flights.destination_code, airports.airport_name
order by route
