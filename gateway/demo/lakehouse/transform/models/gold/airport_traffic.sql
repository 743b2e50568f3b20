-- How busy are the airports of New York, and which of them is the most punctual?
select
    flights.origin_code,
    airports.airport_name,
    count(distinct flights.destination_code) as destinations,
    count(distinct flights.carrier_code) as carriers,
    round(1.0 * count(*) / count(distinct flights.flight_date), 0) as departures_per_day,
    {{ measures() }}
from {{ ref('flights') }} as flights
inner join {{ ref('airports') }} as airports
    on flights.origin_code = airports.airport_code
group by flights.origin_code, airports.airport_name
order by flights.origin_code
