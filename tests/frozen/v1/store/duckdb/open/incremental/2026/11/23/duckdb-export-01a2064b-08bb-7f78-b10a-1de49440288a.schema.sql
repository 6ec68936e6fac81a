-- Rows go in after the tables and before the indexes. A statement that needs a later one is to be run again.
CREATE TABLE "main"."t"(i BIGINT, s VARCHAR);
