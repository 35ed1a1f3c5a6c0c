-- What is installed, as one JSON text; read by doctor.rs. Only where it is installed and may be read.
select jsonb_build_object(
  'format', (select max(format) from lockstep.installation),
  'allow_foreign_publications', (select coalesce(bool_or(allow_foreign_publications), false) from lockstep.installation),
  'publications', (
    select coalesce(jsonb_agg(p.pubname), '[]') from pg_publication p
    where p.pubname in ('lockstep_tables', 'lockstep_tombstones')),
  'partial', (
    select coalesce(jsonb_agg(p.pubname order by p.pubname), '[]') from pg_publication p
    where p.pubname = 'lockstep_tables' and not (p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate)
      or p.pubname = 'lockstep_tombstones' and not p.pubinsert),
  'by_root', coalesce((select pubviaroot from pg_publication where pubname = 'lockstep_tables'), true),
  'clients_published', exists (
    select from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
    where p.pubname = 'lockstep_tables' and r.prrelid = to_regclass('lockstep.clients')
      and to_jsonb(r) ->> 'prqual' is null and to_jsonb(r) ->> 'prattrs' is null),
  'foreign_publications', (
    select coalesce(jsonb_agg(quote_ident(pubname) order by pubname), '[]') from pg_publication where puballtables),
  'xmax', pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
  'collected_seconds', (
    select floor(extract(epoch from clock_timestamp() - coalesce(max(c.at), (select min(tracked_at) from lockstep.tracked))))
    from lockstep.clock c)
)::text
