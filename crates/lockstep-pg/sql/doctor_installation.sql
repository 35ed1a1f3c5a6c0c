-- What is installed, as one JSON text; read by doctor.rs. Only where it is installed and may be read.
select jsonb_build_object(
  'format', (select max(format) from lockstep.installation),
  'allow_foreign_publications', (select coalesce(bool_or(allow_foreign_publications), false) from lockstep.installation),
  'publications', (
    select coalesce(jsonb_agg(p.pubname), '[]') from pg_publication p
    where p.pubname in ('lockstep_tables', 'lockstep_tombstones')),
  'by_root', coalesce((select pubviaroot from pg_publication where pubname = 'lockstep_tables'), true),
  'clients_published', exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'lockstep_tables' and r.prrelid = to_regclass('lockstep.clients')),
  'foreign_publications', (
    select coalesce(jsonb_agg(quote_ident(pubname) order by pubname), '[]') from pg_publication where puballtables),
  -- What a node does with our own tables.
  'missing_rights', (
    select coalesce(jsonb_agg(format('grant %s on lockstep.%I to %I', lower(w.rights), w.name, current_user) order by w.name), '[]')
    from (
      select n.name, string_agg(n.want, ', ' order by n.want) as rights
      from (values ('installation', 'SELECT'), ('tracked', 'SELECT'), ('tracked', 'UPDATE'), ('scopes', 'SELECT'),
        ('clients', 'SELECT'), ('clients', 'INSERT'), ('clients', 'UPDATE'), ('clients', 'DELETE'),
        ('mutations', 'SELECT'), ('mutations', 'INSERT'), ('mutations', 'DELETE'),
        ('incarnations', 'SELECT'), ('incarnations', 'INSERT'), ('incarnations', 'UPDATE'), ('incarnations', 'DELETE'),
        ('clock', 'SELECT'), ('clock', 'INSERT'), ('clock', 'DELETE')) n (name, want)
      where to_regclass('lockstep.' || n.name) is not null
        and not has_table_privilege(to_regclass('lockstep.' || n.name), n.want)
      group by n.name
    ) w),
  'xmax', pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
  'collected_seconds', (
    select floor(extract(epoch from clock_timestamp() - coalesce(max(c.at), (select min(tracked_at) from lockstep.tracked))))
    from lockstep.clock c)
)::text
