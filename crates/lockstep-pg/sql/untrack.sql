lock table lockstep.tracked in share row exclusive mode;
-- DROP TRIGGER needs this lock: readers and writers of the table wait for the rest of this transaction.
lock table {table} in access exclusive mode;
{drop_triggers}{unpublish}
