# SPDX-License-Identifier: Apache-2.0
# Made from the table of commands; do not edit.

function __maestro_command
    # the words of the command line that are no options, the word being completed left out
    set -l skip 0
    for word in (commandline -opc)[2..]
        if test $skip = 1
            set skip 0
        else if test $word = --socket
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

function __maestro_at
    # whether the command line is at this command; without one, whether it has none yet
    set -l words (__maestro_command)
    if test (count $argv) = 0
        test (count $words) = 0
    else
        set -l wanted (count $argv)
        test (count $words) -ge $wanted; or return 1
        set -l head $words[1..$wanted]
        test "$head" = "$argv"
    end
end

function __maestro_names
    set -l words (commandline -opc)
    set -l socket
    if set -l at (contains -i -- --socket $words)
        set socket --socket $words[(math $at + 1)]
    end
    maestro $socket _names $argv[1] 2>/dev/null
end

complete -c maestro -f
complete -c maestro -l socket -r -F -d 'the daemon'\''s socket (default: $MAESTRO_SOCKET)'
complete -c maestro -l json -d 'print JSON: one document, or one per line when following'
complete -c maestro -l help -s h -d 'show help, for a command when one is named'
complete -c maestro -l version -d 'show the version of this command'
complete -c maestro -n __maestro_at -a apply -d 'make the device match a running config'
complete -c maestro -n __maestro_at -a check -d 'validate a document without a daemon, listing every problem'
complete -c maestro -n __maestro_at -a diff -d 'show what apply would do, and why; exit 1 if anything'
complete -c maestro -n __maestro_at -a status -d 'show jobs and their states'
complete -c maestro -n __maestro_at -a start -d 'start jobs'
complete -c maestro -n __maestro_at -a stop -d 'stop jobs'
complete -c maestro -n __maestro_at -a restart -d 'stop jobs and start them again'
complete -c maestro -n __maestro_at -a reload -d 'have jobs read their configs again'
complete -c maestro -n __maestro_at -a pause -d 'freeze jobs as they are; they stay RUNNING'
complete -c maestro -n __maestro_at -a resume -d 'let paused jobs go on'
complete -c maestro -n __maestro_at -a kill -d 'send a signal to jobs'
complete -c maestro -n __maestro_at -a enable -d 'let jobs run, now and after a restart of the device'
complete -c maestro -n __maestro_at -a disable -d 'stop jobs and keep them stopped'
complete -c maestro -n __maestro_at -a lock -d 'have updates of a job wait'
complete -c maestro -n __maestro_at -a unlock -d 'let a job be updated again'
complete -c maestro -n __maestro_at -a logs -d 'show what jobs printed'
complete -c maestro -n __maestro_at -a why -d 'say why a job is in its state'
complete -c maestro -n __maestro_at -a top -d 'show what jobs use of processor and memory'
complete -c maestro -n __maestro_at -a exec -d 'run a program where a job runs'
complete -c maestro -n __maestro_at -a shell -d 'run a shell where a job runs'
complete -c maestro -n __maestro_at -a events -d 'show what happened'
complete -c maestro -n __maestro_at -a tasks -d 'list what is being done and was done last'
complete -c maestro -n __maestro_at -a task -d 'show one task'
complete -c maestro -n __maestro_at -a config -d 'list, get, set, remove'
complete -c maestro -n __maestro_at -a template -d 'list, show'
complete -c maestro -n __maestro_at -a image -d 'list, install, pack, rollback, verify, remove, gc, pin, unpin'
complete -c maestro -n __maestro_at -a doctor -d 'say what this device offers, and what is missing'
complete -c maestro -n __maestro_at -a metrics -d 'print metrics, as OpenMetrics'
complete -c maestro -n __maestro_at -a upgrade -d 'replace the daemon by what is installed now; jobs run on'
complete -c maestro -n __maestro_at -a shutdown -d 'stop the daemon'
complete -c maestro -n __maestro_at -a version -d 'show the versions of command and daemon'
complete -c maestro -n '__maestro_at config; and test (count (__maestro_command)) = 1' -a list -d 'list configs'
complete -c maestro -n '__maestro_at config; and test (count (__maestro_command)) = 1' -a get -d 'print a config'\''s data'
complete -c maestro -n '__maestro_at config; and test (count (__maestro_command)) = 1' -a set -d 'store a config'\''s data; a running job gets it'
complete -c maestro -n '__maestro_at config; and test (count (__maestro_command)) = 1' -a remove -d 'remove a config'
complete -c maestro -n '__maestro_at template; and test (count (__maestro_command)) = 1' -a list -d 'list templates'
complete -c maestro -n '__maestro_at template; and test (count (__maestro_command)) = 1' -a show -d 'print a template'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a list -d 'list installed images'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a install -d 'make a file a job'\''s image and upgrade the job'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a pack -d 'pack a directory and print the entry of a document for it'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a rollback -d 'bring the version before a job'\''s image back'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a verify -d 'look for damaged images; exit 1 if there are any'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a remove -d 'remove a version that is not in use'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a gc -d 'remove every image that nobody needs'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a pin -d 'keep an image from every removal'
complete -c maestro -n '__maestro_at image; and test (count (__maestro_command)) = 1' -a unpin -d 'let a pinned image go'
complete -c maestro -n '__maestro_at apply' -l dry-run -d 'print the plan, change nothing'
complete -c maestro -n '__maestro_at apply' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at apply' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at apply' -l force -d 'even an older one, what was rolled back, what is locked'
complete -c maestro -n '__maestro_at apply; and test (count (__maestro_command)) = 1' -F
complete -c maestro -n '__maestro_at check' -l daemon -d 'the document is a daemon'\''s config file'
complete -c maestro -n '__maestro_at check; and test (count (__maestro_command)) = 1' -F
complete -c maestro -n '__maestro_at diff; and test (count (__maestro_command)) = 1' -F
complete -c maestro -n '__maestro_at status' -l state -r -x -a 'never_ran waiting_for_deps starting running stopping stopped restarting failed' -d 'only jobs in these states, as failed,restarting'
complete -c maestro -n '__maestro_at status' -l composite -r -x -a '(__maestro_names composites)' -d 'only the jobs of this composite'
complete -c maestro -n '__maestro_at status' -l watch -d 'stay, and show what changes'
complete -c maestro -n '__maestro_at status' -l interval -x -d 'seconds between two looks (default: 2)'
complete -c maestro -n '__maestro_at status' -l wide -s w -d 'do not cut lines to the width of the screen'
complete -c maestro -n '__maestro_at status; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at start' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at start' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at start; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at stop' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at stop' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at stop; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at restart' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at restart' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at restart; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at reload' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at reload' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at reload; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at pause' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at pause' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at pause; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at resume' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at resume' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at resume; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at kill' -l signal -s s -r -x -a 'SIGCONT SIGHUP SIGINT SIGKILL SIGQUIT SIGSTOP SIGTERM SIGUSR1 SIGUSR2' -d 'the signal (default: SIGTERM)'
complete -c maestro -n '__maestro_at kill; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at enable' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at enable' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at enable; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at disable' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at disable' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at disable; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at lock' -l reason -x -d 'why, for whoever waits'
complete -c maestro -n '__maestro_at lock; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at unlock; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at logs' -l follow -s f -d 'stay, and print what comes'
complete -c maestro -n '__maestro_at logs' -l lines -s n -x -d 'the last N lines (default: 100), or all'
complete -c maestro -n '__maestro_at logs' -l since -x -d 'from then on: 10m (ago), 14:30, 2026-05-01 14:30'
complete -c maestro -n '__maestro_at logs' -l until -x -d 'up to then'
complete -c maestro -n '__maestro_at logs' -l previous -d 'the output of the run before this one'
complete -c maestro -n '__maestro_at logs; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at why; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at top' -l interval -x -d 'seconds between two looks (default: 2)'
complete -c maestro -n '__maestro_at top' -l sort -r -x -a 'cpu memory job' -d 'by cpu, memory or job (default: cpu)'
complete -c maestro -n '__maestro_at top; and test (count (__maestro_command)) -ge 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at exec; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at exec; and test (count (__maestro_command)) -ge 2' -x -a '(__fish_complete_command)'
complete -c maestro -n '__maestro_at shell; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at events' -l follow -s f -d 'stay, and print what comes'
complete -c maestro -n '__maestro_at events' -l since -x -d 'only events after this one'
complete -c maestro -n '__maestro_at events' -l lines -s n -x -d 'so many of the last events'
complete -c maestro -n '__maestro_at task' -l wait -d 'follow it to its end; exit 1 if it fails'
complete -c maestro -n '__maestro_at task' -l timeout -x -d 'wait no longer than this, as 30 or 1m30s'
complete -c maestro -n '__maestro_at task; and test (count (__maestro_command)) = 1' -x -a '(__maestro_names tasks)'
complete -c maestro -n '__maestro_at config list; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at config get; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at config set; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at config set; and test (count (__maestro_command)) = 4' -F
complete -c maestro -n '__maestro_at config remove; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at template show; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names templates)'
complete -c maestro -n '__maestro_at image install' -l sha256 -x -d 'digest the file must have; required'
complete -c maestro -n '__maestro_at image install' -l job -r -x -a '(__maestro_names jobs)' -d 'the job it is for; required'
complete -c maestro -n '__maestro_at image install' -l image-version -x -d 'its version'
complete -c maestro -n '__maestro_at image install' -l type -x -d 'tarball, zip, devicejs_tarball or devicejs_zip'
complete -c maestro -n '__maestro_at image install' -l signature -r -F -d 'its .minisig file'
complete -c maestro -n '__maestro_at image install' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at image install; and test (count (__maestro_command)) = 2' -F
complete -c maestro -n '__maestro_at image pack' -l output -s o -r -F -d 'the archive: .tar, .tar.gz, .tgz, .tar.xz, .tar.zst or .zip'
complete -c maestro -n '__maestro_at image pack' -l job -r -x -a '(__maestro_names jobs)' -d 'the entry'\''s job (default: DIR'\''s name)'
complete -c maestro -n '__maestro_at image pack' -l image-version -x -d 'the entry'\''s version (default: 1)'
complete -c maestro -n '__maestro_at image pack' -l type -x -d 'the entry'\''s image_type, if devicejs_tarball or devicejs_zip'
complete -c maestro -n '__maestro_at image pack; and test (count (__maestro_command)) = 2' -x -a '(__fish_complete_directories)'
complete -c maestro -n '__maestro_at image rollback' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at image rollback; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at image verify' -l repair -d 'fetch those in use anew, remove the others'
complete -c maestro -n '__maestro_at image verify' -l no-wait -d 'print the task'\''s id instead of waiting for its end'
complete -c maestro -n '__maestro_at image verify; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names jobs)'
complete -c maestro -n '__maestro_at image remove; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names images)'
complete -c maestro -n '__maestro_at image pin; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names images)'
complete -c maestro -n '__maestro_at image unpin; and test (count (__maestro_command)) = 2' -x -a '(__maestro_names images)'
complete -c maestro -n '__maestro_at metrics' -l textfile -r -F -d 'write FILE instead, for node_exporter'\''s textfile collector'
complete -c maestro -n '__maestro_at shutdown' -l keep-jobs -d 'leave the jobs running'
complete -c maestro -n '__maestro_at shutdown' -l stop-jobs -d 'stop the jobs first'
complete -c maestro -n '__maestro_at shutdown' -l no-wait -d 'do not wait until the daemon is gone'
