-- The application's tables are added here one by one, never FOR ALL TABLES: a table without a primary key would
-- refuse UPDATE and DELETE from then on.
create publication lockstep_tables for table lockstep.clients with (publish = 'insert, update, delete, truncate');
