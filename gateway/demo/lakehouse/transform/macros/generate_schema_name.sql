{# dbt would name the schemas main_silver and main_gold, to keep developers who share a database apart.
   A lakehouse in a file of one's own has nobody to be kept apart from, so silver is silver and gold is gold. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name | default(target.schema, true) | trim }}
{%- endmacro %}
