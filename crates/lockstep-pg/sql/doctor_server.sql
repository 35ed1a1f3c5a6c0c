-- The server, the role and what is open, as one JSON text; read by doctor.rs. Columns that not every version has are
-- reached through to_jsonb.
select jsonb_build_object(
  'version', current_setting('server_version'),
  'version_num', current_setting('server_version_num')::int,
  'system', (select system_identifier::text from pg_control_system()),
  'database', current_database(),
  'standby', pg_is_in_recovery(),
  'wal_level', current_setting('wal_level'),
  'max_wal_senders', current_setting('max_wal_senders')::int,
  'max_replication_slots', current_setting('max_replication_slots')::int,
  'senders', (select count(*) from pg_stat_get_wal_senders()),
  'slots', (select count(*) from pg_replication_slots),
  -- Streams of nodes of this database, by the names that they give their slots.
  'nodes', (select count(*) from pg_replication_slots where temporary and active and database = current_database()
    and slot_name ~ '^lockstep_[0-9a-f]{16}$'),
  'node_senders', (select count(*) from pg_replication_slots where temporary and active and slot_name ~ '^lockstep_[0-9a-f]{16}$'),
  'role', current_user,
  'quoted_role', quote_ident(current_user),
  'superuser', (select rolsuper from pg_roles where rolname = current_user),
  'replication', (select rolsuper or rolreplication from pg_roles where rolname = current_user),
  -- Without it the start of others' transactions and what they wait for is hidden.
  'sees_all', pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
  'invalid_slots', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'name', s.slot_name, 'literal', quote_literal(s.slot_name),
      'reason', coalesce(to_jsonb(s) ->> 'invalidation_reason', s.wal_status)) order by s.slot_name), '[]')
    from pg_replication_slots s
    where s.wal_status = 'lost' or to_jsonb(s) ->> 'invalidation_reason' is not null),
  -- A transaction with an id keeps slot creation waiting, in whichever database it is, and the horizon of the logs.
  'writers', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'pid', a.pid, 'state', a.state, 'database', a.datname,
      'since', to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
      'seconds', floor(extract(epoch from clock_timestamp() - a.xact_start))) order by a.xact_start), '[]')
    from pg_stat_activity a
    where a.backend_xid is not null and a.pid <> pg_backend_pid() and a.xact_start is not null
      and a.wait_event is distinct from 'SyncRep'),
  'prepared', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'gid', p.gid, 'literal', quote_literal(p.gid), 'database', p.database,
      'since', to_char(p.prepared at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
      'seconds', floor(extract(epoch from clock_timestamp() - p.prepared))) order by p.prepared), '[]')
    from pg_prepared_xacts p),
  'synchronous_standby_names', current_setting('synchronous_standby_names'),
  'synchronous_standbys', (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')),
  -- Transactions that have committed, are visible to nobody, and wait for a standby.
  'waiting_for_standby', (
    select coalesce(jsonb_agg(jsonb_build_object(
      'pid', a.pid, 'since', to_char(a.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
      'seconds', floor(extract(epoch from clock_timestamp() - a.xact_start))) order by a.xact_start), '[]')
    from pg_stat_activity a where a.wait_event = 'SyncRep'),
  -- By the catalog: a name in a schema that the role may not use is an error.
  'installed', exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'lockstep' and c.relname = 'installation'),
  'usable', (select has_schema_privilege(oid, 'usage') from pg_namespace where nspname = 'lockstep')
)::text
