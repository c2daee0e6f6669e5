// What JDBC and the tools on it (DBeaver, Metabase) do with a server of PostgreSQL's protocol that holds the table shop.orders.
//
//     java -cp postgresql.jar Jdbc.java PORT USER PASSWORD DATABASE
//
// Prints the rows of the table as the client reads them, for a comparison with the source, and ends with an error where
// the client does not get what PostgreSQL gives it.
import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Properties;

public final class Jdbc {
    private static final String ALL = "SELECT id, customer_id, total, status, day, raw FROM shop.orders ORDER BY id";

    private interface Work {
        void run() throws SQLException;
    }

    private static void check(boolean holds, Object said) {
        if (!holds) {
            throw new AssertionError(said);
        }
    }

    private static void refused(String state, Work work) {
        try {
            work.run();
        } catch (SQLException error) {
            check(error.getSQLState().equals(state), error.getSQLState() + ": " + error.getMessage());
            return;
        }
        throw new AssertionError("not refused with " + state);
    }

    private static String show(ResultSet row) throws SQLException {
        List<String> cells = new ArrayList<>();
        cells.add(String.valueOf(row.getLong("id")));
        cells.add(String.valueOf(row.getInt("customer_id")));
        BigDecimal total = row.getBigDecimal("total");
        cells.add(total == null ? "NULL" : total.toPlainString());
        cells.add(row.getString("status") == null ? "NULL" : row.getString("status"));
        cells.add(row.getDate("day") == null ? "NULL" : row.getDate("day").toString());
        byte[] raw = row.getBytes("raw");
        cells.add(raw == null ? "NULL" : HexFormat.of().withUpperCase().formatHex(raw));
        return String.join("|", cells);
    }

    private static List<String> names(ResultSet rows, String column) throws SQLException {
        List<String> names = new ArrayList<>();
        while (rows.next()) {
            names.add(rows.getString(column));
        }
        return names;
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + arguments[0] + "/" + arguments[3];
        Properties properties = new Properties();
        properties.setProperty("user", arguments[1]);
        properties.setProperty("password", arguments[2]);
        properties.setProperty("loginTimeout", "60");
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            List<String> rows = new ArrayList<>();
            try (Statement statement = connection.createStatement(); ResultSet all = statement.executeQuery(ALL)) {
                while (all.next()) {
                    rows.add(show(all));
                }
            }
            rows.forEach(System.out::println);

            // From the fifth run on the driver asks for binary values.
            try (PreparedStatement one = connection.prepareStatement("SELECT id, customer_id, total, status, day, raw FROM shop.orders WHERE id = ?")) {
                for (String row : rows.subList(0, Math.min(12, rows.size()))) {
                    one.setLong(1, Long.parseLong(row.split("\\|")[0]));
                    try (ResultSet found = one.executeQuery()) {
                        check(found.next(), row);
                        check(show(found).equals(row), show(found) + " is not " + row);
                    }
                }
            }
            // In pages, through a portal.
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(3);
                List<String> paged = new ArrayList<>();
                try (ResultSet all = statement.executeQuery(ALL)) {
                    while (all.next()) {
                        paged.add(show(all));
                    }
                }
                check(paged.equals(rows), paged);
            }
            connection.commit();
            connection.setAutoCommit(true);
            connection.setReadOnly(true);
            check(connection.isValid(60), "valid");

            try (Statement statement = connection.createStatement()) {
                refused("42P01", () -> statement.executeQuery("SELECT * FROM shop.nothing_like_it"));
                refused("25006", () -> statement.executeUpdate("DELETE FROM shop.orders"));
                statement.setQueryTimeout(1);
                refused("57014", () -> statement.executeQuery("SELECT count(*) FROM generate_series(1, 4000000000) a"));
            }

            DatabaseMetaData about = connection.getMetaData();
            check(about.getDatabaseProductName().equals("PostgreSQL"), about.getDatabaseProductName());
            check(names(about.getSchemas(), "TABLE_SCHEM").contains("shop"), "schemas");
            List<String> tables = names(about.getTables(null, "shop", "%", new String[] {"TABLE", "VIEW"}), "TABLE_NAME");
            check(tables.contains("orders") && tables.contains("customers"), tables);
            try (ResultSet columns = about.getColumns(null, "shop", "orders", "%")) {
                List<String> found = new ArrayList<>();
                while (columns.next()) {
                    found.add(columns.getString("COLUMN_NAME") + " " + columns.getInt("DATA_TYPE"));
                }
                check(found.contains("id " + Types.BIGINT) && found.contains("total " + Types.NUMERIC), found);
                check(found.contains("day " + Types.DATE) && found.contains("raw " + Types.BINARY), found);
            }
            names(about.getPrimaryKeys(null, "shop", "orders"), "COLUMN_NAME");
            names(about.getImportedKeys(null, "shop", "orders"), "FKCOLUMN_NAME");
            names(about.getExportedKeys(null, "shop", "orders"), "FKCOLUMN_NAME");
            names(about.getIndexInfo(null, "shop", "orders", false, true), "INDEX_NAME");
            names(about.getCatalogs(), "TABLE_CAT");
            names(about.getTableTypes(), "TABLE_TYPE");
            names(about.getTypeInfo(), "TYPE_NAME");
            names(about.getFunctions(null, "shop", "%"), "FUNCTION_NAME");
            names(about.getTablePrivileges(null, "shop", "orders"), "PRIVILEGE");
        }
        refused("28P01", () -> DriverManager.getConnection(url, arguments[1], "wrong").close());
    }
}
