-- When in the day should one leave? Delays add up: the aircraft that is late now was late on its last flight already.
select
    extract(hour from scheduled_departure_at) as departure_hour,
    {{ measures() }}
from {{ ref('flights') }}
group by departure_hour
order by departure_hour
