{# Whether a flight is one of those that the variables `carrier` and `month` choose; one that is not set chooses all.
   What somebody gave becomes a text or a number here, whatever it says, and no more of the SQL than that. #}
{% macro is_chosen() -%}
    true
    {%- if var('carrier') is not none %}
    and carrier_code = '{{ dbt.escape_single_quotes(var('carrier') | string) }}'
    {%- endif %}
    {%- if var('month') is not none %}
    and extract(month from flight_date) = {{ var('month') | int }}
    {%- endif %}
{%- endmacro %}
