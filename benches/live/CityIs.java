import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.transforms.predicates.Predicate;

/**
 * The condition of Kafka Connect's own Filter: true for rows of the city that is named. Debezium's filter by an expression needs
 * a library of scripts that its Python package does not hold; this costs less than any script.
 */
public final class CityIs implements Predicate<SourceRecord> {
    private String city;

    @Override
    public ConfigDef config() {
        return new ConfigDef().define("city", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "the city");
    }

    @Override
    public void configure(Map<String, ?> properties) {
        city = (String) properties.get("city");
    }

    @Override
    public boolean test(SourceRecord record) {
        return record.value() instanceof Struct row && row.schema().field("city") != null && city.equals(row.get("city"));
    }

    @Override
    public void close() {}
}
