-- The demo's schema: shared to-do lists, for an empty database.
--
-- Nothing in here knows of Lockstep. What browsers may follow is said once, by the operator:
--
--   lockstep track lists
--   lockstep track members --scope list_id
--   lockstep track todos   --scope list_id
--
-- Keys are UUIDs so that a browser can name a row before the database has seen it.

create table lists (
  id       uuid   primary key default gen_random_uuid(),
  name     text   not null,
  position float8 not null default extract(epoch from clock_timestamp()),
  -- Archived lists are not kept on devices: they are loaded when somebody opens them.
  archived boolean not null default false,
  constraint lists_name_length check (char_length(name) between 1 and 80)
);

create table members (
  id      uuid primary key default gen_random_uuid(),
  list_id uuid not null references lists (id) on delete cascade,
  name    text not null,
  colour  text not null default 'slate',
  constraint members_name_length check (char_length(name) between 1 and 40),
  constraint members_colour_known check (colour in ('slate', 'blue', 'green', 'amber', 'rose', 'violet'))
);

create table todos (
  id         uuid        primary key default gen_random_uuid(),
  list_id    uuid        not null references lists (id) on delete cascade,
  title      text        not null,
  done       boolean     not null default false,
  assignee   uuid        references members (id) on delete set null,
  created_at timestamptz not null default now(),
  constraint todos_title_length check (char_length(title) between 1 and 200),
  -- A rule that the browser does not check itself, so that a refusal can be seen on the screen.
  constraint todos_title_not_forbidden check (title !~* 'forbidden')
);

create index members_list_id on members (list_id);
create index todos_list_id on todos (list_id);
create index todos_assignee on todos (assignee);

insert into lists (id, name, position) values
  ('11111111-0000-4000-8000-000000000001', 'Summer house', 1),
  ('11111111-0000-4000-8000-000000000002', 'Book club', 2),
  ('11111111-0000-4000-8000-000000000003', 'Groceries', 3);

insert into members (id, list_id, name, colour) values
  ('22222222-0000-4000-8000-000000000001', '11111111-0000-4000-8000-000000000001', 'Ada', 'blue'),
  ('22222222-0000-4000-8000-000000000002', '11111111-0000-4000-8000-000000000001', 'Linus', 'green'),
  ('22222222-0000-4000-8000-000000000003', '11111111-0000-4000-8000-000000000001', 'Margaret', 'rose'),
  ('22222222-0000-4000-8000-000000000004', '11111111-0000-4000-8000-000000000002', 'Ada', 'blue'),
  ('22222222-0000-4000-8000-000000000005', '11111111-0000-4000-8000-000000000002', 'Tove', 'violet'),
  ('22222222-0000-4000-8000-000000000006', '11111111-0000-4000-8000-000000000003', 'Linus', 'green'),
  ('22222222-0000-4000-8000-000000000007', '11111111-0000-4000-8000-000000000003', 'Grace', 'amber');

-- One instant for the whole seed would leave the order to chance: each row is a minute older.
insert into todos (list_id, title, done, assignee, created_at)
select list_id::uuid, title, done, assignee::uuid, now() - interval '1 day' - row * interval '1 minute'
from (values
  (1, '11111111-0000-4000-8000-000000000001', 'Paint the north wall', false, '22222222-0000-4000-8000-000000000002'),
  (2, '11111111-0000-4000-8000-000000000001', 'Order new hinges for the shutters', true, '22222222-0000-4000-8000-000000000001'),
  (3, '11111111-0000-4000-8000-000000000001', 'Ask the neighbours about the well pump', false, '22222222-0000-4000-8000-000000000003'),
  (4, '11111111-0000-4000-8000-000000000001', 'Sweep the chimney', false, null),
  (5, '11111111-0000-4000-8000-000000000001', 'Bring the boat ashore before the first frost', false, '22222222-0000-4000-8000-000000000001'),
  (6, '11111111-0000-4000-8000-000000000001', 'Pay the harbour fee', true, null),
  (7, '11111111-0000-4000-8000-000000000002', 'Choose the November novel', false, '22222222-0000-4000-8000-000000000005'),
  (8, '11111111-0000-4000-8000-000000000002', 'Return “The Summer Book” to the library', true, '22222222-0000-4000-8000-000000000004'),
  (9, '11111111-0000-4000-8000-000000000002', 'Find a café with a long table', false, null),
  (10, '11111111-0000-4000-8000-000000000003', 'Oat milk', false, '22222222-0000-4000-8000-000000000006'),
  (11, '11111111-0000-4000-8000-000000000003', 'Rye bread', false, null),
  (12, '11111111-0000-4000-8000-000000000003', 'Coffee, whole beans', true, '22222222-0000-4000-8000-000000000007'),
  (13, '11111111-0000-4000-8000-000000000003', 'Lemons', false, '22222222-0000-4000-8000-000000000007')
) as seed (row, list_id, title, done, assignee);
