"""From a stranger's files to the input tables: tars, folders, Hugging Face style Parquet (I4).

One process lists the source; a pool of processes reads it, a shard or a chunk of files each, and
writes one part of every table; one process merges the counts of terms. Nothing is shuffled and no
two units know each other, so a pool does what Spark would do here, without a JVM: what follows,
`ingest_images`, is the first step that needs a shuffle. On several machines give each a folder of
the source and list the tables' folders in one configuration.

Bytes or uri: a tar and a Parquet file cannot name one picture by a uri, so their pictures are
copied into the table; the pictures of a folder stay where they are and the table names them, so
the folder must stay, and every node must see it, until the release is written.

Cost at 1.329 billion pictures. Scales: reading, checking and writing, by shard, in memory of one
row group (64 MB) a process; `--check decode` is the dear part (one decode a picture),
`--check header` reads the bytes only, and for folders `--check none` not even these. Does not: the
listing of a folder (one process, its rate not measured, one hash in memory a listed name where a
CSV names the files) and the merge of counts, whose memory is
the number of different keywords, or words and pairs of words in captions. Folders are meant for up
to ten million pictures or so, shards for what is above; pictures carried as bytes (40 TB) then pass
a shuffle in `ingest_images`, so at the paper's size write `source_images` with uris from the
crawler.
"""
