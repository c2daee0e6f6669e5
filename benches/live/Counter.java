import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.FileReader;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Runs Debezium's embedded engine into a consumer that only counts, and prints one JSON line.
 * Time and CPU are taken from the first to the last event, so that starting the JVM and the connector is free.
 * Usage: Counter PROPERTIES EVENTS SECONDS [close]; with "close" the engine stops in order and writes its offset.
 */
public final class Counter {
    private static volatile long events, firstNanos, lastNanos, firstCpu, lastCpu;

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        try (FileReader reader = new FileReader(arguments[0])) {
            properties.load(reader);
        }
        long wanted = Long.parseLong(arguments[1]);
        CountDownLatch done = new CountDownLatch(1);
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
            .using(properties)
            .notifying((List<ChangeEvent<String, String>> batch, DebeziumEngine.RecordCommitter<ChangeEvent<String, String>> committer) -> {
                if (firstNanos == 0) {
                    firstNanos = System.nanoTime();
                    firstCpu = cpuNanos();
                }
                for (ChangeEvent<String, String> event : batch) {
                    committer.markProcessed(event);
                }
                committer.markBatchFinished();
                events += batch.size();
                lastNanos = System.nanoTime();
                lastCpu = cpuNanos();
                if (events >= wanted) {
                    done.countDown();
                }
            })
            .using((boolean success, String message, Throwable error) -> {
                if (!success) {
                    System.err.println(message);
                }
                done.countDown();
            })
            .build();
        Executors.newSingleThreadExecutor().execute(engine);
        done.await(Long.parseLong(arguments[2]), TimeUnit.SECONDS);
        long peakKib = 0;
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                peakKib = Long.parseLong(line.replaceAll("\\D", ""));
            }
        }
        System.out.printf("{\"rows\": %d, \"seconds\": %.3f, \"cpu_seconds\": %.3f, \"peak_mib\": %d}%n",
            events, (lastNanos - firstNanos) / 1e9, (lastCpu - firstCpu) / 1e9, peakKib / 1024);
        if (arguments.length > 3) {
            engine.close();
        }
        Runtime.getRuntime().halt(events >= wanted ? 0 : 1);
    }
}
