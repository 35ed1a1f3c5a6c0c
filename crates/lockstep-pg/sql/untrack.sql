-- DROP TRIGGER needs this lock: readers and writers of the table wait for the rest of this transaction.
lock table {table} in access exclusive mode;
{publication}drop trigger if exists lockstep_insert on {table};
drop trigger if exists lockstep_update on {table};
drop trigger if exists lockstep_delete on {table};
drop trigger if exists lockstep_truncate on {table};
