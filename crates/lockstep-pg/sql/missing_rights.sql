-- The GRANTs, and the attribute, that the current role lacks to be a 'node' or a 'writer' (the placeholder kind), each as a statement, with
-- whether it is about a table of the application. Read from the catalog alone, which takes no right.
with ours as (
  select c.oid, c.relname::text as name from pg_catalog.pg_class c
  where c.relnamespace = to_regnamespace('lockstep') and c.relkind = 'r'
),
-- A tracked table carries our triggers, partitions their clones.
theirs as (
  select c.oid, c.relnamespace from pg_catalog.pg_class c
  where not c.relispartition and c.oid in (
    select g.tgrelid from pg_catalog.pg_trigger g join pg_catalog.pg_proc p on p.oid = g.tgfoid
    where p.pronamespace = to_regnamespace('lockstep'))
),
needed(kind, name, rights) as (values
  ('node', '^(installation|scopes)$', array['select']),
  ('node', '^tracked$', array['select', 'update']),
  ('node', '^(clients|mutations|(changes|tombstones)_[0-9]+)$', array['select', 'delete']),
  ('node', '^incarnations$', array['select', 'insert', 'update', 'delete']),
  ('node', '^clock$', array['select', 'insert', 'delete']),
  ('writer', '^(tracked|scopes)$', array['select']),
  ('writer', '^clients$', array['select', 'insert', 'update']),
  ('writer', '^mutations$', array['select', 'insert', 'delete'])
),
wanted as (
  select 0 as place, false as theirs, 'schema lockstep' as thing, 'usage' as one,
    has_schema_privilege(to_regnamespace('lockstep'), 'usage') as had
  union all
  select 1, false, 'lockstep.' || o.name, r.one, has_table_privilege(o.oid, r.one)
  from ours o join needed n on o.name ~ n.name cross join lateral unnest(n.rights) as r(one)
  where n.kind = {kind}
  union all
  select distinct 2, true, format('schema %I', n.nspname), 'usage', has_schema_privilege(n.oid, 'usage')
  from theirs t join pg_catalog.pg_namespace n on n.oid = t.relnamespace
  union all
  select 3, true, format('%I.%I', n.nspname, c.relname), r.one, has_table_privilege(c.oid, r.one)
  from theirs t join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  cross join lateral unnest(case {kind} when 'node' then array['select']
    else array['select', 'insert', 'update', 'delete'] end) as r(one)
)
select theirs::text, text from (
  select place, theirs, thing, format('grant %s on %s to %I', string_agg(one, ', ' order by one), thing, current_user) as text
  from wanted where not had group by place, theirs, thing
  union all
  -- A policy would choose what a node reads, while the stream has all rows.
  select 4, true, '', format('alter role %I bypassrls', current_user)
  where {kind} = 'node' and exists (select from theirs t where row_security_active(t.oid))
) lacking
order by place, thing
