-- The application's tables are added here one by one, never FOR ALL TABLES: a table without a primary key would
-- refuse UPDATE and DELETE from then on. Rows of a partitioned table travel under its own name: a partition is
-- nothing that clients know.
create publication lockstep_tables for table lockstep.clients with (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);
