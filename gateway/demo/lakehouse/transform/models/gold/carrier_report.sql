-- How did each day of one carrier go, in one month? The variables `carrier` and `month` choose them; without, all are here.
-- The other tables do not heed the variables: each of them is about all flights, and a test adds it up to all of them.
select
    carrier_code,
    carrier_name,
    flight_date,
    {{ measures() }}
from {{ ref('flight_details') }}
where {{ is_chosen() }}
group by carrier_code, carrier_name, flight_date
order by carrier_code, flight_date
