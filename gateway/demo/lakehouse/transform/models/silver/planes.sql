select
    tailnum as tail_number,
    year as built_year,
    type as aircraft_type,
    -- two makers are registered under more than one name
    case
        when manufacturer like 'AIRBUS%' then 'AIRBUS'
        when manufacturer like 'MCDONNELL DOUGLAS%' then 'MCDONNELL DOUGLAS'
        else manufacturer
    end as manufacturer,
    model,
    engines as engine_count,
    engine as engine_type,
    seats as seat_count
from {{ source('bronze', 'planes') }}
