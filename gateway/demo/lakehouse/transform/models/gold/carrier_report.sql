-- How did each day of one carrier go, in one month? The variables `carrier` and `month` choose both; the default is all.
-- The other gold tables ignore the variables: a test checks that each of them covers all flights.
select
    carrier_code,
    carrier_name,
    flight_date,
    {{ measures() }}
from {{ ref('flight_details') }}
where {{ is_chosen() }}
group by carrier_code, carrier_name, flight_date
order by carrier_code, flight_date
