-- How did each day of the year go?
select
    flight_date,
    {{ measures() }}
from {{ ref('flights') }}
group by flight_date
order by flight_date
