-- The application's tables are added here one by one, never FOR ALL TABLES: a table without a primary key would
-- refuse UPDATE and DELETE from then on. Rows of a partitioned table travel under its own name: a partition is
-- nothing that clients know.
create publication lockstep_tables for table lockstep.clients with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
-- Stored generated columns are in the stream since 18, when asked for; in none before.
do $$
begin
  if current_setting('server_version_num')::int >= 180000 then
    alter publication lockstep_tables set (publish_generated_columns = stored);
  end if;
end
$$;
