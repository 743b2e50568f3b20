-- The list covers the fifty states. New York also flies to four airports in the Caribbean, which are added by hand
-- so that no flight loses its destination.
with caribbean (airport_code, airport_name, latitude, longitude, altitude_feet, time_zone) as (
    values
        ('BQN', 'Rafael Hernandez', 18.4949, -67.1294, 237, 'America/Puerto_Rico'),
        ('PSE', 'Mercedita', 18.0083, -66.5630, 29, 'America/Puerto_Rico'),
        ('SJU', 'Luis Munoz Marin Intl', 18.4394, -66.0018, 9, 'America/Puerto_Rico'),
        ('STT', 'Cyril E King', 18.3373, -64.9734, 23, 'America/St_Thomas')
),

listed as (
    select
        faa as airport_code,
        name as airport_name,
        lat as latitude,
        lon as longitude,
        alt as altitude_feet,
        tzone as time_zone
    from {{ source('bronze', 'airports') }}
)

select * from listed
union all
select * from caribbean
where airport_code not in (select airport_code from listed)
