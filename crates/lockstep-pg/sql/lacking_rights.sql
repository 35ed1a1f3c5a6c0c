-- GRANTs on a table ($1, its oid) that the roles of nodes and writers lack. Those roles are known by what they may do with
-- our tables: only nodes collect samples of the clock, only writers add clients.
with roles as (
  select distinct a.grantee as oid, array['select'] as rights
  from pg_class c cross join lateral aclexplode(c.relacl) a
  where c.oid = to_regclass('lockstep.clock') and a.privilege_type = 'DELETE' and a.grantee not in (0, c.relowner)
  union all
  select distinct a.grantee, array['select', 'insert', 'update', 'delete']
  from pg_class c cross join lateral aclexplode(c.relacl) a
  where c.oid = to_regclass('lockstep.clients') and a.privilege_type = 'INSERT' and a.grantee not in (0, c.relowner)
),
wanted as (
  select r.oid as role, 0 as place, format('schema %I', n.nspname) as thing, 'usage' as one,
    has_schema_privilege(r.oid, n.oid, 'usage') as had
  from roles r cross join pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1
  union
  select r.oid, 1, format('%I.%I', n.nspname, c.relname), u.one, has_table_privilege(r.oid, c.oid, u.one)
  from roles r cross join lateral unnest(r.rights) as u(one)
  cross join pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1
)
select text from (
  select role, place, format('grant %s on %s to %I;', string_agg(one, ', ' order by one), thing, pg_get_userbyid(role)) as text
  from wanted where not had group by role, place, thing
  union all
  -- A policy would choose what a node reads, while the stream has all rows.
  select r.oid, 2, format('alter role %I bypassrls;', u.rolname)
  from roles r
  join pg_roles u on u.oid = r.oid and not u.rolbypassrls and not u.rolsuper
  join pg_class c on c.oid = $1 and c.relrowsecurity and not (
    pg_has_role(r.oid, c.relowner, 'usage') and not c.relforcerowsecurity)
  where r.rights = array['select']
) lacking
order by role, place
