# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_bkp_global_optspecs
    string join \n config= store= key= trust= with-keyset= json q/quiet v/verbose h/help
end

function __fish_bkp_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_bkp_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_bkp_using_subcommand
    set -l cmd (__fish_bkp_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c bkp -n "__fish_bkp_needs_command" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_needs_command" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_needs_command" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_needs_command" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_needs_command" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_needs_command" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_needs_command" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_needs_command" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_needs_command" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "init" -d 'Write a first configuration and a key, then check them'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "snapshot" -d 'Back up a consistent capture of a source'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "export" -d 'Export the tables of a DuckDB database as Parquet, or dump the databases of a PostgreSQL server'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "replicate" -d 'Copy the new and changed files of a folder, or the backups of one store to another'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "logs" -d 'Ship the change log of a source since the last shipped position'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "list" -d 'List the backups of a store'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "verify" -d 'Check a backup, from its existence to a restore drill, or the ledger against the stores'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "restore" -d 'Restore a backup to a new path'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "catalog" -d 'Write the catalog of backups to a DuckDB database'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "run" -d 'Run all due jobs, or one job now'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "status" -d 'Show the health of jobs, backups and stores'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "cleanup" -d 'Remove backups that no retention policy keeps, and orphaned objects'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "pin" -d 'Pin a backup: retention keeps it and everything it builds on'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "unpin" -d 'Remove the pin from a backup'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "note" -d 'Attach a note to a backup'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "keys" -d 'Generate key files, show what each key opens, and open existing backups with new keys'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "config" -d 'Check, show or describe the configuration'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "doctor" -d 'Check everything a backup needs, without making one'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "completions" -d 'Print the completion script for a shell'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "help-files" -d 'Write the man page and shell completions to a folder'
complete -c bkp -n "__fish_bkp_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand init" -l source -d 'Source to back up, as KIND:PLACE or NAME=KIND:PLACE, such as `duckdb:/srv/analytics.duckdb` or `postgres:host=/run/postgresql`; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l schedule -d 'How often to back up, such as 6h, or when, such as "daily at 03:00" [default: what suits the source]' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l user -d 'User who is to run the backups and owns key, state and store [default: bkp if it exists and root runs this, else whoever runs this]' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand init" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand init" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand init" -l print -d 'Print the configuration; ask nothing, and write nothing'
complete -c bkp -n "__fish_bkp_using_subcommand init" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand init" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand init" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand init" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l scope -d 'Scope of the backup' -r -f -a "full\t'Everything'
incremental\t'What changed since the previous backup'
differential\t'What changed since the last full backup'
auto\t'Incremental if a usable chain exists, otherwise full'"
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l mode -d 'Capture mode [default: the mode of the source]' -r
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand export" -l scope -d 'Scope of the export' -r -f -a "full\t'Everything'
incremental\t'What changed since the previous backup'
differential\t'What changed since the last full backup'
auto\t'Incremental if a usable chain exists, otherwise full'"
complete -c bkp -n "__fish_bkp_using_subcommand export" -l mode -d 'Capture mode [default: the mode of the source]' -r
complete -c bkp -n "__fish_bkp_using_subcommand export" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand export" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand export" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand export" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand export" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand export" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand export" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand export" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand export" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand export" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l to -d 'Copy to this store (name or URL) what it does not have yet: backups, pins, notes and logs, byte for byte' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l from -d 'Store to copy from [default: another store of SOURCE, else the only other store]' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l scope -d 'Scope of the replica [default: auto]' -r -f -a "full\t'Every file'
incremental\t'What changed since earlier replicas'
auto\t'Incremental if a usable chain exists, otherwise full'"
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l reseal -d 'Seal the copies anew under new data keys, for the `recipients` of the configuration alone; --key only adds keys to read with'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand replicate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l mode -d 'What to ship of TigerBeetle: wal (from the data file) or query (from the cluster) [default: the mode of the source]' -r
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l push -d 'Archive this file of the server\'s log: for PostgreSQL\'s `archive_command`' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l fetch -d 'Bring the file of this name to this path: for `restore_command`' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l follow -d 'Keep shipping until interrupted, polling every few seconds'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand logs" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l type -d 'Only backups of this type' -r -f -a "tigerbeetle\t''
duckdb\t''
parquet\t''
postgres\t''
kms\t''"
complete -c bkp -n "__fish_bkp_using_subcommand list" -l id -d 'Only backups whose id has this prefix' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l scope -d 'Only backups of this scope' -r -f -a "full\t''
incremental\t''
differential\t''"
complete -c bkp -n "__fish_bkp_using_subcommand list" -l since -d 'Only backups that started at or after this time, such as 2026-11-21T02:00:00Z' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l until -d 'Only backups that started before this time' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l limit -d 'Only the newest COUNT, newest first [default: all, oldest first]' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l store-at -d 'Read the bucket as it was at this time, such as 2026-11-21T02:00:00Z; it must have versioning. For the day after somebody overwrote or deleted backups; writes nothing to the store' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l sql -d 'Show the result of a query over the table backup_metadata, for example "SELECT source, max(end_time) FROM backup_metadata WHERE status = \'completed\' GROUP BY ALL"' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l job -d 'Only backups that this job made, or with --runs its runs' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l tenant -d 'Only backups of sources with this tenant, as their manifests say' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l status -d 'Only ledger events with this status' -r -f -a "started\t''
completed\t''
failed\t''
deleted\t''
restored\t''
verified\t''
copied\t''
resealed\t''"
complete -c bkp -n "__fish_bkp_using_subcommand list" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand list" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand list" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand list" -l cached -d 'Show the last full listing of this host without accessing the store'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l pinned -d 'Only pinned backups'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l long -d 'Show details from the manifests (sizes, positions, parents) and notes'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l windows -d 'Show the windows to which SOURCE can be restored, and the gaps in its log'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l from-ledger -d 'Show the events of the ledger, whatever the stores contain: started, completed, failed, deleted, restored, verified'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l runs -d 'Show recorded runs: started, completed, partial, failed, skipped, restored, verified; the newest 100 unless --limit is given'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l failed -d 'Only failed runs'
complete -c bkp -n "__fish_bkp_using_subcommand list" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand list" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand list" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand list" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l latest -d 'Newest backup of this source' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l id -d 'Backup id, or a unique prefix of it' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l at -d 'Newest backup of SOURCE that started no later than this, such as 2026-11-21T02:00:00Z; if SOURCE has a log, restore rolls it forward to that moment, or with `latest` to the end of the shipped log' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l level -d 'Depth of the check; each level includes the previous ones' -r -f -a "exists\t'Manifest and objects exist, are authentic and have the right size'
digest\t'Every stored object has the SHA-256 in the manifest'
decode\t'Everything decrypts, decompresses and is complete; every row of an export matches what was exported'
drill\t'The real engine starts on a restored copy and answers as at capture'"
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l scratch -d 'Folder for restores of a drill and for unpacking exports [default: in the state directory]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l tier -d 'Tier at which objects in GLACIER or DEEP_ARCHIVE are restored: Bulk, Standard or Expedited' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l thaw-days -d 'Days for which such objects stay readable' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l store-at -d 'Read the bucket as it was at this time, such as 2026-11-21T02:00:00Z; it must have versioning. For the day after somebody overwrote or deleted backups; writes nothing to the store' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l all -d 'Every backup of SOURCE, or of the store'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l from-export -d 'Use the exports of SOURCE instead of its snapshots'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l thaw -d 'Ask for objects in GLACIER or DEEP_ARCHIVE that have to be read; without it they are skipped'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l logs -d 'Check the log of SOURCE instead: its segments are consecutive and readable; with --level drill, a random moment is also restored and its server started'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l ledger -d 'Compare the ledger with every configured store instead, to find changed, removed or planted backups; needs no key'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l record -d 'Record authentic backups missing from the ledger; needs a key'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand verify" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l latest -d 'Newest backup of this source' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l id -d 'Backup id, or a unique prefix of it' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l at -d 'Newest backup of SOURCE that started no later than this, such as 2026-11-21T02:00:00Z; if SOURCE has a log, restore rolls it forward to that moment, or with `latest` to the end of the shipped log' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l op -d 'Last operation of the log of SOURCE to replay, instead of a time' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l lsn -d 'Position in the log of a PostgreSQL server to end at, instead of a time' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l xid -d 'Transaction of a PostgreSQL server to end with, instead of a time' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l name -d 'Restore point of a PostgreSQL server to end at, instead of a time' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l base -d 'Snapshot to start from when replaying a log, by a prefix of its id [default: the newest]' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l store-at -d 'Read the bucket as it was at this time, such as 2026-11-21T02:00:00Z; it must have versioning. For the day after somebody overwrote or deleted backups; writes nothing to the store' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l to -d 'Path to restore to; of an export of PostgreSQL also `postgresql://HOST/DATABASE`' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l tenant -d 'Restore only this tenant\'s rows, from --at or --from-export, into the database given by --into' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l into -d 'Live database to restore the rows of --tenant into: `postgresql://HOST/DATABASE`' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l mode -d 'How to put the rows of --tenant back: `fk` has the database check foreign keys, `replica` has bkp check them' -r -f -a "fk\t''
replica\t''"
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l replica -d 'Replica number of the restored file' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l addresses -d 'Further addresses at which the original cluster might still be running' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l database -d 'Only this database of an export' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l schema -d 'Only this schema of an export of PostgreSQL; can be given several times' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l table -d 'Only this table of an export, and the tables it references' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l file -d 'Only files whose path fits this pattern, such as `2026/*.parquet`; can be given several times' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l tablespace -d 'Folder for a tablespace of PostgreSQL [default: PATH.tablespaces/OID]; can be given several times' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l tier -d 'Tier at which objects in GLACIER or DEEP_ARCHIVE are restored: Bulk, Standard or Expedited' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l thaw-days -d 'Days for which such objects stay readable' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l exclusive -d 'End right before what --at, --lsn or --xid names'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l renamed -d 'The tenant has been renamed since the backup'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l from-export -d 'Use the exports of SOURCE instead of its snapshots'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l wait -d 'Wait for objects in GLACIER or DEEP_ARCHIVE instead of exiting with 75'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l force -d 'Rename what exists at PATH instead of refusing'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l yes -d 'Do not ask for confirmation'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand restore" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l to -d 'Path of the database' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l force -d 'Replace the file at PATH'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand catalog" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand run" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand run" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand run" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand run" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand run" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand run" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand run" -l dry-run -d 'Show what would run, without running it'
complete -c bkp -n "__fish_bkp_using_subcommand run" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand run" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand run" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand run" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand status" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand status" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand status" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand status" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand status" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand status" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand status" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand status" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand status" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l wait-lock -d 'Wait up to this long for a conflicting run to end, such as 10m [default: do not wait]' -r
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l dry-run -d 'Show what would be removed and why, without removing it'
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand cleanup" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l note -d 'Reason, kept beside the backup' -r
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand pin" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand pin" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand pin" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand pin" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l note -d 'Reason, kept beside the backup' -r
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand unpin" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand note" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand note" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand note" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand note" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand note" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand note" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand note" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand note" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand note" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand note" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -f -a "generate" -d 'Generate a key; never overwrites an existing file'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -f -a "list" -d 'List the keys of the configuration and of all backups, and how many each opens'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -f -a "status" -d 'Show the age and state of every configured key'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -f -a "rewrap" -d 'Let new recipients open existing backups, in every store'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and not __fish_seen_subcommand_from generate list status rewrap help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l signing -d 'Generate the key that this host signs its backups with, and print the public one'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l age -d 'Generate a private key of age, and print the public one, for hosts that are not to open backups'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l dry-run -d 'Show what would be done, without doing it'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l to -d 'Recipient that is to open the backups; may be repeated [default: every configured recipient]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l dry-run -d 'Show how many backups lack a recipient, without writing anything'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from rewrap" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Generate a key; never overwrites an existing file'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the keys of the configuration and of all backups, and how many each opens'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "status" -d 'Show the age and state of every configured key'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "rewrap" -d 'Let new recipients open existing backups, in every store'
complete -c bkp -n "__fish_bkp_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "check" -d 'Check the configuration'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "show" -d 'Show the resolved settings as TOML; secrets are shown as references'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "lifecycle" -d 'Print the lifecycle rules of a bucket that move data as the store\'s `tiers` say, as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "tenants" -d 'Check which rows of a PostgreSQL database belong to which tenant, or propose a map of them'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "schema" -d 'Print the JSON Schema of the configuration file or of a report'
complete -c bkp -n "__fish_bkp_using_subcommand config; and not __fish_seen_subcommand_from check show lifecycle tenants schema help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l origin -d 'Show where each value comes from: file, environment, flag, default'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from lifecycle" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l root -d 'Table with one row per tenant: propose a map by following foreign keys to it, instead of checking the configured map' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l database -d 'Database to look at [default: that of the configured map]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from tenants" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l report -d 'Report to describe, by the name in its `schema` field: `list` for bkp.list/1' -r -f -a "snapshot\t''
snapshot-plan\t''
export\t''
export-plan\t''
replica\t''
replica-plan\t''
copies\t''
catalog\t''
query\t''
logs\t''
log-push\t''
log-fetch\t''
list\t''
list-windows\t''
verify\t''
verify-all\t''
verify-logs\t''
verify-ledger\t''
list-ledger\t''
list-runs\t''
restore\t''
restore-plan\t''
restore-at\t''
restore-at-plan\t''
restore-tenant\t''
restore-tenant-plan\t''
thaw\t''
run\t''
status\t''
cleanup\t''
pin\t''
init\t''
init-plan\t''
keys\t''
keys-list\t''
keys-status\t''
rewrap\t''
config-check\t''
config\t''
config-lifecycle\t''
config-tenants\t''
config-schema\t''
doctor\t''
completions\t''
error\t''
warning\t''"
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from schema" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check the configuration'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Show the resolved settings as TOML; secrets are shown as references'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "lifecycle" -d 'Print the lifecycle rules of a bucket that move data as the store\'s `tiers` say, as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "tenants" -d 'Check which rows of a PostgreSQL database belong to which tenant, or propose a map of them'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "schema" -d 'Print the JSON Schema of the configuration file or of a report'
complete -c bkp -n "__fish_bkp_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand completions" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand completions" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand completions" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand completions" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l config -d 'Configuration file [default: $BKP_CONFIG, $XDG_CONFIG_HOME/bkp/bkp.toml, /etc/bkp/bkp.toml]' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l store -d 'Store, by name or URL; repeatable when making a backup [default: $BKP_STORE, the stores of the source, or the only one]' -r
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l key -d 'Key to use instead of the configured recipients; repeatable [default: $BKP_KEY]' -r
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l trust -d 'Public signing key whose backups are trusted, besides those of the configuration; repeatable' -r
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l with-keyset -d 'Restored key set: open backups with the data keys in it, for which --key is the recovery key' -r -F
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -l json -d 'Print one JSON object; errors go to standard error as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -s q -l quiet -d 'Print only results, warnings and errors'
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -s v -l verbose -d 'Print more detail; repeatable'
complete -c bkp -n "__fish_bkp_using_subcommand help-files" -s h -l help -d 'Print help'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "init" -d 'Write a first configuration and a key, then check them'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "snapshot" -d 'Back up a consistent capture of a source'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "export" -d 'Export the tables of a DuckDB database as Parquet, or dump the databases of a PostgreSQL server'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "replicate" -d 'Copy the new and changed files of a folder, or the backups of one store to another'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "logs" -d 'Ship the change log of a source since the last shipped position'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "list" -d 'List the backups of a store'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "verify" -d 'Check a backup, from its existence to a restore drill, or the ledger against the stores'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "restore" -d 'Restore a backup to a new path'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "catalog" -d 'Write the catalog of backups to a DuckDB database'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "run" -d 'Run all due jobs, or one job now'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "status" -d 'Show the health of jobs, backups and stores'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "cleanup" -d 'Remove backups that no retention policy keeps, and orphaned objects'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "pin" -d 'Pin a backup: retention keeps it and everything it builds on'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "unpin" -d 'Remove the pin from a backup'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "note" -d 'Attach a note to a backup'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "keys" -d 'Generate key files, show what each key opens, and open existing backups with new keys'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "config" -d 'Check, show or describe the configuration'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "doctor" -d 'Check everything a backup needs, without making one'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "completions" -d 'Print the completion script for a shell'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "help-files" -d 'Write the man page and shell completions to a folder'
complete -c bkp -n "__fish_bkp_using_subcommand help; and not __fish_seen_subcommand_from init snapshot export replicate logs list verify restore catalog run status cleanup pin unpin note keys config doctor completions help-files help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "generate" -d 'Generate a key; never overwrites an existing file'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "list" -d 'List the keys of the configuration and of all backups, and how many each opens'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "status" -d 'Show the age and state of every configured key'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "rewrap" -d 'Let new recipients open existing backups, in every store'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Check the configuration'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Show the resolved settings as TOML; secrets are shown as references'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "lifecycle" -d 'Print the lifecycle rules of a bucket that move data as the store\'s `tiers` say, as JSON'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "tenants" -d 'Check which rows of a PostgreSQL database belong to which tenant, or propose a map of them'
complete -c bkp -n "__fish_bkp_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "schema" -d 'Print the JSON Schema of the configuration file or of a report'
