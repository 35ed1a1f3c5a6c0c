-- One JSON text for each tracked table that exists: what an application's types are made from; read by schema.rs.
select jsonb_build_object(
  'schema', n.nspname,
  'name', c.relname,
  'key', (select jsonb_agg(a.attname order by k.at)
    from unnest(t.key_attnums) with ordinality k (attnum, at)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum),
  'columns', (select jsonb_agg(jsonb_build_object(
      'name', a.attname,
      'type_oid', a.atttypid::int8,
      'type', format_type(coalesce(nullif(ty.typbasetype, 0), a.atttypid), case when ty.typbasetype = 0 then a.atttypmod else ty.typtypmod end),
      'enum_name', case when ty.typtype = 'e' then ty.typname end,
      'labels', coalesce((
        select jsonb_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = ty.oid), '[]'),
      'not_null', a.attnotnull or ty.typnotnull,
      'has_default', a.atthasdef or a.attidentity <> '' or ty.typdefault is not null,
      'fixed', a.attidentity = 'a'
    ) order by a.attnum)
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_type ty on ty.oid = a.atttypid
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''),
  'references', coalesce((select jsonb_agg(jsonb_build_object(
      'name', f.conname,
      'schema', tn.nspname,
      'table', tc.relname,
      'from', (select jsonb_agg(a.attname order by k.at)
        from unnest(f.conkey) with ordinality k (attnum, at)
        join pg_catalog.pg_attribute a on a.attrelid = f.conrelid and a.attnum = k.attnum),
      'to', (select jsonb_agg(a.attname order by k.at)
        from unnest(f.confkey) with ordinality k (attnum, at)
        join pg_catalog.pg_attribute a on a.attrelid = f.confrelid and a.attnum = k.attnum),
      -- one row at most refers to each: the reverse is one row too
      'is_unique', exists (select from pg_catalog.pg_index i
        where i.indrelid = f.conrelid and i.indisunique and i.indpred is null and i.indexprs is null
          and (select array_agg(x order by x) from unnest(i.indkey::int2[]) with ordinality u (x, at) where u.at <= i.indnkeyatts)
            = (select array_agg(x order by x) from unnest(f.conkey) x))
    ) order by f.conname)
    from pg_catalog.pg_constraint f
    join lockstep.tracked ft on ft.relation = f.confrelid
    join pg_catalog.pg_class tc on tc.oid = f.confrelid
    join pg_catalog.pg_namespace tn on tn.oid = tc.relnamespace
    where f.conrelid = c.oid and f.contype = 'f' and f.conparentid = 0), '[]')
)::text
from lockstep.tracked t
join pg_catalog.pg_class c on c.oid = t.relation
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by n.nspname, c.relname
