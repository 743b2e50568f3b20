-- Tests the dates of departures after midnight: a flight leaves at most an hour early, and at most a day late.
select flight_key, scheduled_departure_at, departed_at
from {{ ref('flights') }}
where departed_at < scheduled_departure_at - interval '1 hour'
    or departed_at > scheduled_departure_at + interval '1 day'
