"""Names of table columns, in one place. Every table in the project uses these words."""

USER_ID = "user_id"  # encoded: 1..num_users, 0 is unused
ITEM_ID = "item_id"  # encoded: 1..num_items, 0 pads
RAW_USER_ID = "raw_user_id"  # as the dataset writes it
RAW_ITEM_ID = "raw_item_id"
RATING = "rating"
TIMESTAMP = "timestamp"  # seconds since 1970
MILLISECONDS = "milliseconds"  # into the second, where a source knows them: for the order of rows alone
LINE = "__line__"  # where a row stands in its raw file, from 1; no file has a column of this name
SPLIT = "split"  # TRAIN, VAL or TEST
TITLE = "title"
YEAR = "year"
GENRES = "genres"  # of films; of products, their categories
TAGS = "tags"  # of items, where a dataset has them
AUTHOR = "author"  # of books, as the next two
PUBLISHER = "publisher"
PERIOD = "period"  # the decade of `year`: 1990s
BRAND = "brand"  # of products, as the next two
DESCRIPTION = "description"
FEATURES = "features"
COUNTRY = "country"  # of users, as the next one
AGE = "age"  # a band: 25-34
COUNT = "count"  # ratings of an item in the training part
TIER = "tier"  # head, mid, tail or cold
MODALITY = "modality"
TEXT = "text"
DOC_ID = "doc_id"
DOC_IDS = "doc_ids"
NOTE = "note"  # how a text came about, where that was not as asked

TRAIN, VAL, TEST = 0, 1, 2
SPLITS = {"val": VAL, "test": TEST}  # as metrics and command lines call them
